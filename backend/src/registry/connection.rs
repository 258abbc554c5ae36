//! Connections: to an address or through a proxy, plain or with TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{HOST, PROXY_AUTHORIZATION},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    origin::{Origin, is_near},
    proxy::Proxy,
    transport::TransportError,
};

pub struct Connector {
    tls: TlsConnector,
    /// For registries that are named as insecure.
    unverified: TlsConnector,
}

/// One that waits for requests.
pub struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    /// It leads to this host or one of its links.
    pub near: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connector {
    /// `roots`: authorities that are trusted.
    pub fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
            builder
                .with_safe_default_protocol_versions()
                .expect("the provider has TLS 1.2 and 1.3")
        };
        let verified = builder().with_root_certificates(roots).with_no_client_auth();
        let anyone = Arc::new(Anyone(Arc::clone(&provider)));
        let unverified = builder().dangerous().with_custom_certificate_verifier(anyone);
        Connector {
            tls: Arc::new(verified).into(),
            unverified: Arc::new(unverified.with_no_client_auth()).into(),
        }
    }

    /// `near`: it may lead to this host or one of its links. `unverified`: any certificate will do.
    ///
    /// # Errors
    /// Nobody is there, or who is there cannot be trusted.
    pub async fn connect(
        &self,
        origin: &Origin,
        proxy: Option<&Proxy>,
        unverified: bool,
        near: bool,
    ) -> Result<Connection, TransportError> {
        // Where a proxy leads only it knows, but for what is an address already.
        if let (false, Ok(address)) = (near, origin.host.parse::<IpAddr>())
            && is_near(address)
        {
            return Err(TransportError::Near {
                origin: origin.clone(),
            });
        }
        let (stream, is_near): (Box<dyn Stream>, bool) = match proxy {
            None => {
                let (stream, address) = tcp(origin, near).await?;
                (Box::new(stream), is_near(address))
            }
            Some(proxy) => {
                let (stream, _) = tcp(&proxy.origin, true).await?;
                let stream: Box<dyn Stream> = match proxy.origin.tls {
                    true => self.secure(&proxy.origin, Box::new(stream), false).await?,
                    false => Box::new(stream),
                };
                match origin.tls {
                    true => (tunnel(origin, proxy, stream).await?, false),
                    false => (stream, false),
                }
            }
        };
        let stream = match origin.tls {
            true => self.secure(origin, stream, unverified).await?,
            false => stream,
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| TransportError::Broken {
            origin: origin.clone(),
            source,
        })?;
        // Ends with its sender; its errors are those of the requests.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            near: is_near,
        })
    }

    async fn secure(
        &self,
        origin: &Origin,
        stream: Box<dyn Stream>,
        unverified: bool,
    ) -> Result<Box<dyn Stream>, TransportError> {
        let failed = |source| TransportError::Tls {
            origin: origin.clone(),
            source,
        };
        let name = ServerName::try_from(origin.host.clone());
        let name = name.map_err(|error| failed(io::Error::other(error)))?;
        let connector = if unverified { &self.unverified } else { &self.tls };
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        Ok(Box::new(stream))
    }
}

/// A connection to one of the addresses of a name, and which. The very address that is checked is connected to: a
/// name may have another one in the next moment.
async fn tcp(origin: &Origin, near: bool) -> Result<(TcpStream, IpAddr), TransportError> {
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    let found: Vec<SocketAddr> = match found {
        Ok(found) => found.collect(),
        Err(source) => {
            let host = origin.host.clone();
            return Err(TransportError::Resolve { host, source });
        }
    };
    let may: Vec<SocketAddr> = found
        .iter()
        .copied()
        .filter(|one| near || !is_near(one.ip()))
        .collect();
    if may.is_empty() && !found.is_empty() {
        return Err(TransportError::Near {
            origin: origin.clone(),
        });
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in may {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.ip()));
            }
            Err(error) => last = error,
        }
    }
    Err(TransportError::Connect {
        origin: origin.clone(),
        source: last,
    })
}

/// CONNECT (RFC 9110, section 9.3.6).
async fn tunnel(
    origin: &Origin,
    proxy: &Proxy,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, TransportError> {
    let broken = |source| TransportError::Broken {
        origin: proxy.origin.clone(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection.with_upgrades());
    let host = match origin.host.contains(':') {
        true => format!("[{}]:{}", origin.host, origin.port),
        false => format!("{}:{}", origin.host, origin.port),
    };
    let target: Uri = host.parse().map_err(|_| TransportError::Url(host.clone()))?;
    let mut request = Request::new(Full::<Bytes>::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    if let Ok(host) = host.parse() {
        headers.insert(HOST, host);
    }
    if let Some(authorization) = &proxy.authorization {
        headers.insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    let response = sender.send_request(request).await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(TransportError::Proxy {
            proxy: proxy.origin.clone(),
            origin: origin.clone(),
            status: response.status(),
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// Believes every certificate. Only for registries that the operator has named as insecure.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
