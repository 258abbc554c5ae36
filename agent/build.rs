//! Links `stead` at a fixed address: every supervisor is this program, and the relocations of a
//! position-independent one would cost each of them 200 KiB of private memory. The benchmarks, too: the supervisors
//! of some are the benchmark itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-no-pie", "-static"] {
        println!("cargo::rustc-link-arg-bins={argument}");
        println!("cargo::rustc-link-arg-benches={argument}");
    }
}
