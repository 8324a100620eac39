//! The build script of every crate here that links LibTorch: it writes LibTorch's folder into the binaries as their
//! run-time search path, so that a test, an editor or a binary started directly finds it with no variable set.
//!
//! Cargo shows a build script only the metadata of its direct dependencies, so each crate passes the folder on.
#[allow(unreachable_pub, reason = "experiments calls it from its own build script")]
pub fn main() {
    let names = ["DEP_TCH_LIBTORCH_LIB", "DEP_SELFSUP_TORCH_EXT_LIBTORCH", "DEP_SELFSUP_CORE_LIBTORCH"];
    if let Some(lib) = names.iter().find_map(|name| std::env::var(name).ok()) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo::metadata=libtorch={lib}");
    }
}
