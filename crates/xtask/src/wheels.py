"""Downloads wheels and lays out what they hold. Run by `cargo xtask setup`, as

    python3 -c SCRIPT PARENT fetch PIP-ARGUMENT...
    python3 -c SCRIPT PARENT extract DEST HEADER [--text PATH TEXT]... [--wheel FILE [--take FROM TO]...]...

`extract` writes the manifest of DEST last: HEADER, then `file SHA256 SIZE PATH` for each file.
It needs Python 3.8 and nothing outside the standard library.
"""
import hashlib
import os
import sys
import time
import zipfile

BLOCK = 1 << 20


def die_with(parent):
    """Ends this process when the one that started it ends, however that ends, so that nothing is left running."""
    import ctypes

    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent:
        sys.exit(1)


def fetch(arguments):
    import runpy

    sys.argv = ["pip"] + arguments
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


class Bar:
    """Megabytes done of all, on one line of a terminal, or only the last line elsewhere."""

    def __init__(self, what, total):
        self.what, self.total, self.done, self.shown = what, max(total, 1), 0, 0.0
        self.terminal, self.start = sys.stderr.isatty(), time.monotonic()

    def add(self, n):
        self.done += n
        now = time.monotonic()
        if self.terminal and now - self.shown > 0.1:
            self.shown = now
            self.show("\r")

    def show(self, end):
        share = min(self.done / self.total, 1.0)
        bar = ("#" * int(30 * share)).ljust(30, "-")
        sys.stderr.write(f"   {self.what} [{bar}] {self.done / 1e6:.0f}/{self.total / 1e6:.0f} MB{end}")
        sys.stderr.flush()

    def finish(self):
        self.show(f" in {time.monotonic() - self.start:.1f} s\n")


def target(name, takes):
    for source, place in takes:
        if name == source:
            return place
        if source.endswith("/") and name.startswith(source):
            return place + name[len(source):]
    return None


def extract(arguments):
    dest, header = arguments[:2]
    texts, wheels = [], []
    rest = iter(arguments[2:])
    for flag in rest:
        if flag == "--text":
            texts.append((next(rest), next(rest)))
        elif flag == "--wheel":
            wheels.append((next(rest), []))
        elif flag == "--take":
            wheels[-1][1].append((next(rest), next(rest)))

    members = []
    for file, takes in wheels:
        archive = zipfile.ZipFile(file)
        found = [(archive, m, target(m.filename, takes)) for m in archive.infolist() if not m.is_dir()]
        found = [f for f in found if f[2] is not None]
        names = {m.filename for _, m, _ in found}
        for source, _ in takes:
            if not any(n == source or (source.endswith("/") and n.startswith(source)) for n in names):
                sys.exit(f"error: {file} holds no {source}")
        members += found

    bar = Bar("extracting", sum(m.file_size for _, m, _ in members))
    lines, seen = [header], set()
    for archive, member, place in members:
        if ".." in place.split("/") or place.startswith("/"):
            sys.exit(f"error: {member.filename} would leave the folder")
        if place in seen:  # Packages of one namespace may both hold its __init__.py.
            continue
        seen.add(place)
        path = os.path.join(dest, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        digest = hashlib.sha256()
        with archive.open(member) as source, open(path, "xb") as out:
            while block := source.read(BLOCK):  # The last read checks the archive's own CRC.
                digest.update(block)
                out.write(block)
                bar.add(len(block))
        os.chmod(path, 0o755 if (member.external_attr >> 16) & 0o100 else 0o644)
        lines.append(f"file {digest.hexdigest()} {member.file_size} {place}")
    for place, text in texts:
        path, data = os.path.join(dest, place), text.encode()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as out:
            out.write(data)
        lines.append(f"file {hashlib.sha256(data).hexdigest()} {len(data)} {place}")
    bar.finish()

    # All of it on the disk before the file that says so: one call instead of ten thousand fsyncs.
    os.sync()
    with open(os.path.join(dest, "manifest"), "x") as out:
        out.write("\n".join(lines) + "\n")
        out.flush()
        os.fsync(out.fileno())


die_with(int(sys.argv[1]))
if sys.argv[2] == "fetch":
    fetch(sys.argv[3:])
else:
    extract(sys.argv[3:])
