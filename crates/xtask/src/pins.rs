//! Which LibTorch: the one place of its version, of the wheels it is cut from and of their sums.
//!
//! torch-sys 0.24 is written against this version. The C++ libraries do not depend on Python's version, so one wheel of
//! one Python serves every machine. The CUDA packages are those that the wheel's own requirements resolve to.

/// LibTorch's version.
pub(crate) const VERSION: &str = "2.11.0";

/// Changes when the same wheels shall be laid out differently; an older layout is then made again.
pub(crate) const LAYOUT: u32 = 1;

/// Which parts of LibTorch are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The CPU's libraries, and the two of CUDA's that `libtorch_cpu.so` itself names.
    Cpu,
    /// Everything, with CUDA's libraries.
    Cuda,
}

/// One wheel.
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) file: &'static str,
    pub(crate) sha256: &'static str,
    /// What to take of it: a file, or with a final `/` a folder, and where to put it in the layout.
    pub(crate) take: &'static [(&'static str, &'static str)],
}

impl Wheel {
    /// The platform tags in its file's name.
    pub(crate) fn platforms(&self) -> impl Iterator<Item = &'static str> {
        let tags = self.file.trim_end_matches(".whl").rsplit('-').next().unwrap_or_default();
        tags.split('.')
    }
}

impl Variant {
    /// How the command line and the cache's folder write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Cpu => "cpu",
            Variant::Cuda => "cuda",
        }
    }

    /// The folder of a layout that LIBTORCH names. CUDA's libraries lie where the wheel's RPATH looks for them, beside
    /// `torch`.
    pub(crate) fn home(self) -> &'static str {
        match self {
            Variant::Cpu => "",
            Variant::Cuda => "torch",
        }
    }

    pub(crate) fn wheels(self) -> &'static [Wheel] {
        match self {
            Variant::Cpu => CPU,
            Variant::Cuda => CUDA,
        }
    }

    /// Small files that no wheel holds: the linker's view of libtorch.so, where the wheel's own is left out because it
    /// needs CUDA, and the version that torch-sys checks.
    pub(crate) fn texts(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Variant::Cpu => &[("lib/libtorch.so", "INPUT(libtorch_cpu.so libc10.so)\n"), ("build-version", "2.11.0\n")],
            Variant::Cuda => &[("torch/build-version", "2.11.0\n")],
        }
    }

    /// (download, disk in use at the end, disk needed meanwhile), in MB.
    pub(crate) fn size_mb(self) -> (u64, u64, u64) {
        match self {
            Variant::Cpu => (545, 500, 1200),
            Variant::Cuda => (DOWNLOAD_CUDA, DISK_CUDA, DOWNLOAD_CUDA + DISK_CUDA + 1000),
        }
    }
}

const DOWNLOAD_CUDA: u64 = 2520;
const DISK_CUDA: u64 = 3900;

macro_rules! torch {
    ($($take:expr),+) => {
        Wheel {
            package: "torch",
            version: VERSION,
            file: "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            sha256: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
            take: &[$($take),+],
        }
    };
}

macro_rules! nvidia {
    ($package:literal, $version:literal, $file:literal, $sha256:literal, $($take:expr),+) => {
        Wheel { package: $package, version: $version, file: $file, sha256: $sha256, take: &[$($take),+] }
    };
}

macro_rules! cupti {
    ($($take:expr),+) => {
        nvidia!(
            "nvidia-cuda-cupti", "13.0.85", "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
            "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8", $($take),+
        )
    };
}

macro_rules! cudart {
    ($($take:expr),+) => {
        nvidia!(
            "nvidia-cuda-runtime", "13.0.96",
            "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", $($take),+
        )
    };
}

/// A CUDA package as a whole.
const ALL: (&str, &str) = ("nvidia/", "nvidia/");

const CPU: &[Wheel] = &[
    torch!(
        ("torch/include/", "include/"),
        ("torch/lib/libc10.so", "lib/libc10.so"),
        ("torch/lib/libtorch_cpu.so", "lib/libtorch_cpu.so"),
        ("torch/lib/libgomp.so.1", "lib/libgomp.so.1")
    ),
    cupti!(("nvidia/cu13/lib/libcupti.so.13", "lib/libcupti.so.13")),
    cudart!(("nvidia/cu13/lib/libcudart.so.13", "lib/libcudart.so.13")),
];

const CUDA: &[Wheel] = &[
    torch!(("torch/include/", "torch/include/"), ("torch/lib/", "torch/lib/")),
    cupti!(ALL),
    cudart!(ALL),
    nvidia!(
        "nvidia-cublas",
        "13.1.0.3",
        "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
        "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
        ALL
    ),
    nvidia!(
        "nvidia-cuda-nvrtc",
        "13.0.88",
        "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        ALL
    ),
    nvidia!(
        "nvidia-cudnn-cu13",
        "9.19.0.56",
        "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl",
        "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
        ALL
    ),
    nvidia!(
        "nvidia-cufft",
        "12.0.0.61",
        "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
        ALL
    ),
    nvidia!(
        "nvidia-cufile",
        "1.15.1.6",
        "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
        ALL
    ),
    nvidia!(
        "nvidia-curand",
        "10.4.0.35",
        "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        ALL
    ),
    nvidia!(
        "nvidia-cusolver",
        "12.0.4.66",
        "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
        ALL
    ),
    nvidia!(
        "nvidia-cusparse",
        "12.6.3.3",
        "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
        ALL
    ),
    nvidia!(
        "nvidia-cusparselt-cu13",
        "0.8.0",
        "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl",
        "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
        ALL
    ),
    nvidia!(
        "nvidia-nccl-cu13",
        "2.28.9",
        "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
        "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
        ALL
    ),
    nvidia!(
        "nvidia-nvjitlink",
        "13.0.88",
        "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
        ALL
    ),
    nvidia!(
        "nvidia-nvshmem-cu13",
        "3.4.5",
        "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
        ALL
    ),
    nvidia!(
        "nvidia-nvtx",
        "13.0.85",
        "nvidia_nvtx-13.0.85-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
        ALL
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned_by_a_whole_sum_and_names_its_platform() {
        for wheel in CPU.iter().chain(CUDA) {
            assert!(wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", wheel.file);
            assert!(wheel.file.starts_with(&format!("{}-{}-", wheel.package.replace('-', "_"), wheel.version)));
            assert!(wheel.platforms().all(|p| p.starts_with("manylinux") && p.ends_with("_x86_64")), "{}", wheel.file);
            for (from, to) in wheel.take {
                assert_eq!(from.ends_with('/'), to.ends_with('/'), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn the_version_is_written_for_torch_sys() {
        for variant in [Variant::Cpu, Variant::Cuda] {
            assert!(
                variant.texts().iter().any(|(path, text)| path.ends_with("build-version") && text.trim() == VERSION)
            );
        }
    }
}
