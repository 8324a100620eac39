//! Compiles the C++ shim, and passes LibTorch's folder on as `crates/rpath.rs` does for the other crates.

use std::path::{Path, PathBuf};

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").ok().map(PathBuf::from);
    if let Some(lib) = &lib {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
        println!("cargo::metadata=libtorch={}", lib.display());
    }
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=build.rs");

    // Headers lie beside the libraries in LibTorch's archive, in a wheel's `torch` folder and in a system folder.
    let places = [
        std::env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from),
        lib.as_deref().and_then(Path::parent).map(PathBuf::from),
        std::env::var_os("LIBTORCH").map(PathBuf::from),
    ];
    let headers =
        places.iter().flatten().map(|place| place.join("include")).find(|h| h.join("ATen/core/Tensor.h").is_file());
    let Some(headers) = headers else {
        println!(
            "cargo::error=LibTorch's headers (include/ATen/core/Tensor.h) were not found; run `cargo xtask setup`, or set LIBTORCH to a LibTorch 2.11.0 or to the `torch` folder of its wheel"
        );
        return;
    };
    let system = |folder: &str| format!("-isystem{}", headers.join(folder).display());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // The shim only calls LibTorch; optimising it more gains nothing and costs seconds.
        .opt_level(1)
        .flag(system("."))
        .flag(system("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // `gloo/`: what LibTorch's headers want to know of a library whose own headers it does not ship.
        .include("shim")
        .file("shim/shim.cpp")
        .file("shim/c10d.cpp")
        .compile("selfsup_torch_ext_shim");
}
