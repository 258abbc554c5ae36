//! Images from a real registry: Debian's docker-registry on the loopback of the test's host, filled by skopeo.

mod down;
mod kills;
pub mod lab;
mod shown;
mod tools;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    host::{Host, PATIENCE},
    images::{layout, says},
};

pub const ADDRESS: &str = "127.0.0.1:5000";

/// Ends with the test.
pub struct Registry {
    process: Child,
    root: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// Without TLS, and stead may ask it so.
    pub fn plain(host: &Host) -> Registry {
        lab::trust(host, &[ADDRESS.to_owned()]);
        Registry::start(host, &format!("http: {{ addr: \"{ADDRESS}\" }}\n"))
    }

    /// `more`: of its configuration, at the place of `http` and `auth`.
    pub fn start(host: &Host, more: &str) -> Registry {
        let root = host.directory("registry");
        let configuration = root.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\n{more}",
            root.display()
        );
        fs::write(&configuration, text).expect("its configuration");
        let log = fs::File::create(root.join("log")).expect("its log");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let process = host
            .network
            .on_host(|| command.spawn().expect("docker-registry starts"));
        let address = ADDRESS.parse().expect("an address");
        let answers = || {
            let connected = host.network.on_host(|| TcpStream::connect::<SocketAddr>(address));
            connected.is_ok().then_some(())
        };
        host.wait("the registry listens", PATIENCE, answers);
        Registry { process, root }
    }

    /// skopeo-copy(1).
    pub fn push(&self, host: &Host, layout: &Path, name: &str, more: &[&str]) {
        let source = format!("oci:{}:one", layout.display());
        let target = format!("docker://{ADDRESS}/{name}");
        let options = ["copy", "--insecure-policy", "--dest-tls-verify=false", "--quiet"];
        host.tool("skopeo", &[&options, more, &[&source, &target]].concat());
    }
}

/// What keeps the project from what it asks for.
pub fn complaint(host: &Host, part: &str) {
    host.wait(&format!("it is said: {part}"), PATIENCE, || {
        host.stead(&["status", "shop"])
            .stdout
            .contains(part)
            .then_some(())
    });
}

#[test]
fn an_image_is_pulled_once_and_runs_on_without_its_registry() {
    let Some(mut host) = Host::new("registry") else {
        return;
    };
    let layout = layout(&host, "layout");
    let registry = Registry::start(&host, &format!("http: {{ addr: \"{ADDRESS}\" }}\n"));
    registry.push(&host, &layout, "team/box:1", &[]);
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!("services: {{ web: {{ image: \"{ADDRESS}/team/box:1\" }} }}\n"),
    );
    // Nobody has said that it may be asked without TLS.
    complaint(&host, "cannot be trusted");
    lab::trust(&host, &[ADDRESS.to_owned()]);
    host.converged("shop");
    says(&host, "shop", "web");
    let instance = host.running("shop", "web");
    // Without the registry: another agent, another service, and the same again.
    drop(registry);
    host.kill_agent();
    host.start_agent();
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.running("shop", "web").identity(), instance.identity());
    host.change(
        "shop",
        &format!(
            "services:\n  web: {{ image: \"{ADDRESS}/team/box:1\" }}\n  more: {{ image: \"{ADDRESS}/team/box:1\" }}\n"
        ),
    );
    says(&host, "shop", "more");
    host.finish();
}

#[test]
fn a_registry_with_tls_and_a_password_is_told_it_and_nobody_else_is() {
    let Some(mut host) = Host::new("registry-private") else {
        return;
    };
    let layout = layout(&host, "layout");
    let keys = host.directory("keys");
    let file = |name: &str| keys.join(name).display().to_string();
    let (key, certificate, passwords) = (file("key.pem"), file("certificate.pem"), file("htpasswd"));
    host.tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=registry",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    );
    // htpasswd -Bbn me secret
    let hashed = "me:$2y$05$M8vcGjYBvR8korbf8jEvYOVczc8897LA2seG05OjYSsrmcrq2/pUe\n";
    fs::write(&passwords, hashed).expect("a file");
    let more = format!(
        "http: {{ addr: \"{ADDRESS}\", tls: {{ certificate: {certificate}, key: {key} }} }}\n\
         auth: {{ htpasswd: {{ realm: ours, path: {passwords} }} }}\n"
    );
    let registry = Registry::start(&host, &more);
    registry.push(&host, &layout, "team/box:1", &["--dest-creds", "me:secret"]);
    // Trusted as this host trusts its own authorities; the certificate of the registry is one by itself.
    host.environment.push(("SSL_CERT_FILE", certificate.into()));
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!("services: {{ web: {{ image: \"{ADDRESS}/team/box:1\" }} }}\n"),
    );
    complaint(&host, "docker login");
    let known = |password: &str| {
        // As `docker login` writes it.
        let auth = host.tool_bytes("sh", &["-c", &format!("printf me:{password} | base64")]);
        let auth = String::from_utf8(auth).expect("base64");
        let text = format!("{{\"auths\":{{\"{ADDRESS}\":{{\"auth\":\"{}\"}}}}}}", auth.trim());
        fs::write(host.root.join("auth.json"), text).expect("a file");
    };
    known("wrong");
    complaint(&host, "401 Unauthorized");
    known("secret");
    host.converged("shop");
    says(&host, "shop", "web");
    let log = fs::read_to_string(host.root.join("agent.log")).expect("the agent's log");
    assert!(
        !log.contains("secret") && !log.contains("bWU6"),
        "a password is in the log"
    );
    let seen = fs::read_to_string(registry.root.join("log")).expect("its log");
    assert!(!seen.contains("panic"), "{seen}");
    host.finish();
}
