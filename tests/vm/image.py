# SPDX-License-Identifier: MIT
"""What a guest boots: a kernel as ELF and a small initramfs, made from an
installed kernel, or one that kernels.sh made, and kept in build/vm.

Nothing is downloaded and nothing outside build/vm is written.
"""
import glob
import lzma
import os
import re
import struct
import subprocess
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(TOP, "build", "vm")
KERNELS = os.path.join(TOP, "build", "kernels")

# Enough to mount the host's root; the rest is loaded from there by modprobe.
MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"]
APPLETS = ["sh", "mount", "insmod", "mkdir", "switch_root", "sleep", "cat",
           "ln", "cp", "ip"]


def roots():
    """Where kernels are: this machine, and what kernels.sh made."""
    return ["/"] + sorted(glob.glob(os.path.join(KERNELS, "*", "")))


def root_of(kver):
    """The root whose /lib/modules has that version, or None."""
    for root in roots():
        if vmlinuz_in(root, kver):
            return root
    return None


def vmlinuz_in(root, kver):
    for path in (f"boot/vmlinuz-{kver}", f"usr/lib/modules/{kver}/vmlinuz"):
        if os.path.exists(os.path.join(root, path)):
            return os.path.join(root, path)
    return None


def vmlinuz(kver):
    """The kernel image of that version, or None."""
    root = root_of(kver)
    return root and vmlinuz_in(root, kver)


def modules_folder(kver):
    """Its modules, as this machine sees them."""
    return os.path.join(root_of(kver), "lib/modules", kver)


def has_module(kver, name):
    """Loadable or built in."""
    for listed in ("modules.dep", "modules.builtin"):
        try:
            with open(os.path.join(modules_folder(kver), listed), encoding="utf-8") as file:
                if any(f"/{name}.ko" in line.split(":")[0] for line in file):
                    return True
        except OSError:
            pass
    return False


def default_kver(name=""):
    """What K=name chooses: a kernel of kernels.sh by its name, else an installed
    one whose version starts so.  The running kernel if it can be built for, else
    the newest that can, else the newest there is; the same choice as the
    Makefile's."""
    root = os.path.join(KERNELS, name) if name else "/"
    start = "" if os.path.isdir(root) else glob.escape(name)
    root = root if os.path.isdir(root) else "/"
    found = [os.path.basename(path) for path in
             glob.glob(os.path.join(root, f"lib/modules/{start}*"))]
    found = [kver for kver in found if vmlinuz_in(root, kver)]
    built = [kver for kver in found if
             os.path.lexists(os.path.join(root, f"lib/modules/{kver}/build"))]
    if os.uname().release in built:
        return os.uname().release

    def by_number(kver):
        return [int(n) for n in re.findall(r"\d+", kver)]
    return max(built or found, key=by_number, default=None)


def cached(name, sources, make):
    """build/vm/name, made again when a source is newer.  Two runs at once may
    both make it; each sees a whole file."""
    path = os.path.join(BUILD, name)
    newest = max(os.path.getmtime(source) for source in sources)
    if os.path.exists(path) and os.path.getmtime(path) > newest:
        return path
    os.makedirs(BUILD, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=BUILD, delete=False) as out:
        out.write(make())
    os.replace(out.name, path)
    return path


def unpack_kernel(path):
    """The ELF kernel inside a bzImage.  QEMU boots it through its PVH entry;
    unpacking in the guest would cost seconds under emulation."""
    with open(path, "rb") as file:
        image = file.read()
    if image[0x202:0x206] != b"HdrS":
        raise ValueError(f"{path}: not a bzImage")
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the unpacked size, no part of the stream.
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4],
                              stdout=subprocess.PIPE, check=True).stdout
    raise ValueError(f"{path}: packed in an unknown way")


def is_debug(kver):
    """Has it KASAN?"""
    try:
        with open(os.path.join(modules_folder(kver), "build", ".config"),
                  encoding="utf-8") as file:
            return "CONFIG_KASAN=y\n" in file
    except OSError:
        return False


def kernel(kver, packed=False):
    """What QEMU boots.  As it is packed, the kernel starts by its own stub, which
    turns on five levels of page tables; 6.1 with KASAN starts in no other way."""
    source = vmlinuz(kver)
    if not source:
        raise FileNotFoundError(f"no kernel image for {kver}")
    if packed or is_debug(kver):
        return source
    return cached(f"vmlinux-{kver}", [source, __file__],
                  lambda: unpack_kernel(source))


def modules_with_needs(kver):
    """Paths of MODULES and what they need, in load order; those built into the
    kernel are left out."""
    root = root_of(kver)
    if not os.path.exists(f"{modules_folder(kver)}/modules.dep.bin"):
        subprocess.run(["/sbin/depmod", "-b", root, kver], check=True)
    order = []
    for module in MODULES:
        shown = subprocess.run(
            ["/sbin/modprobe", "-d", root, "-S", kver, "--show-depends",
             module],
            stdout=subprocess.PIPE, text=True, check=True).stdout
        for line in shown.splitlines():
            what, _, rest = line.partition(" ")
            path = rest.split()[0]
            if what == "insmod" and path not in order:
                order.append(path)
    return order


def read_module(path):
    """The module's bytes as they are: Debian's signature must stay on it, or
    the kernel calls itself tainted."""
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq", path], check=True,
                              stdout=subprocess.PIPE).stdout
    with (lzma.open if path.endswith(".xz") else open)(path, "rb") as file:
        return file.read()


def cpio(entries):
    """A "newc" archive of (name, mode, bytes)."""
    out = bytearray()
    for inode, (name, mode, data) in enumerate(
            entries + [("TRAILER!!!", 0, b"")], start=1):
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields)
        out += name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4)
        out += data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def make_initrd(kver):
    directory, link, program = 0o040755, 0o120777, 0o100755
    entries = [(name, directory, b"") for name in
               ("bin", "modules", "proc", "sys", "dev", "new", "rw", "lower")]
    with open("/bin/busybox", "rb") as file:
        entries.append(("bin/busybox", program, file.read()))
    entries += [(f"bin/{name}", link, b"busybox") for name in APPLETS]
    with open(os.path.join(HERE, "init.sh"), "rb") as file:
        entries.append(("init", program, file.read()))
    order = []
    for path in modules_with_needs(kver):
        name = re.sub(r"\.ko.*", ".ko", os.path.basename(path))
        entries.append((f"modules/{name}", program, read_module(path)))
        order.append(name)
    listing = "".join(f"{name}\n" for name in order).encode()
    entries.append(("modules/order", program, listing))
    return cpio(entries)


def initrd(kver):
    sources = [__file__, os.path.join(HERE, "init.sh"), "/bin/busybox",
               vmlinuz(kver)]
    return cached(f"initrd-{kver}", sources, lambda: make_initrd(kver))
