"""What the daemon may read and write, and what leads out of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from stylus_daemon.roots import Roots, adding, forget_root, keep_roots, kept_roots

from stylus_audio.errors import BadRequest, NotAllowed, NotFound, StylusError
from stylus_audio.places import user_data


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "clip.wav").write_bytes(b"inside")
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed-not"
    folder.mkdir()
    (folder / "clip.wav").write_bytes(b"secret")
    return folder


@pytest.fixture
def roots(inside: Path) -> Iterator[Roots]:
    before = Path.cwd()
    yield Roots([inside])
    assert Path.cwd() == before


def test_a_file_in_a_root_is_allowed(roots: Roots, inside: Path) -> None:
    assert roots.file(str(inside / "clip.wav")) == (inside / "clip.wav").resolve()
    assert roots.resolved(str(inside / "new" / "stem.wav")) == (inside / "new" / "stem.wav").resolve()


# fmt: off
def hostile(inside: Path, outside: Path) -> list[str]:
    """Two hundred ways to ask for something else."""
    (inside / "link").symlink_to(outside)
    (inside / "link.wav").symlink_to(outside / "clip.wav")
    (inside / "all").symlink_to("/")
    (inside / "loop").symlink_to("loop")
    (inside / "relative").symlink_to("../allowed-not")
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "deep" / "er" / "far.wav").symlink_to("../../../allowed-not/clip.wav")
    away = [
        f"{inside}/{'deep/er/' * n}{'../' * (2 * n + up)}allowed-not/clip.wav" for n in range(5) for up in (1, 2, 3)
    ]
    links = [
        f"{inside}/{name}"
        for name in (
            "link/clip.wav", "link.wav", "all/etc/passwd", "relative/clip.wav", "deep/er/far.wav",
            "link/../allowed-not/clip.wav", "all/proc/self/environ", "loop", "loop/x.wav",
        )
    ]
    absolute = [
        str(outside / "clip.wav"), "/etc/passwd", "/proc/self/mem", "/dev/zero", "/dev/stdin", "/",
        f"/{outside}/clip.wav", f"//{outside}/clip.wav", f"{inside}-not/clip.wav", str(inside.parent),
    ]
    windows = [
        r"\\server\share\clip.wav", r"\\?\C:\clip.wav", r"\\.\PhysicalDrive0", r"C:\Windows\win.ini", "C:clip.wav",
        "//server/share/clip.wav", "smb://server/clip.wav", "file:///etc/passwd", "NUL", "CON", "clip.wav:stream",
    ]
    broken = [
        "", " ", "\0", f"{inside}/clip.wav\0", f"{inside}/\0/../../x", f"{inside}/cl\0ip.wav", "clip.wav", "./clip.wav",
        "../clip.wav", "~nobody-here/clip.wav", "~/../../etc/passwd", "-rf", "$HOME/clip.wav", "`id`", "\ud800.wav",
        f"{inside}/\ud800.wav",
    ]
    long = [f"{inside}/{'x' * n}.wav" for n in (256, 1000, 2999, 3001, 10_000, 60_000)]
    long += [f"{inside}/{'a/' * n}../{'../' * n}../allowed-not/clip.wav" for n in range(1, 60)]
    dots = [
        f"{inside}/{dots}/allowed-not/clip.wav" for dots in ("..", "./..", ".././.", "..//", "deep/../..", "./././..")
    ]
    dots += [f"{inside}/{'./' * n}../allowed-not/clip.wav" for n in range(60)]
    dots += [f"{inside}{'/' * n}..{'/' * n}allowed-not{'/' * n}clip.wav" for n in range(1, 20)]
    return away + links + absolute + windows + broken + long + dots
# fmt: on


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links")
def test_two_hundred_hostile_paths_lead_nowhere(roots: Roots, inside: Path, outside: Path) -> None:
    paths = hostile(inside, outside)
    assert len(paths) >= 200
    for path in paths:
        with pytest.raises(StylusError) as refused:
            roots.file(path)
        assert refused.value.code in ("bad-request", "not-allowed", "not-found")
        assert "secret" not in str(refused.value)


def test_the_refusal_names_the_command_that_allows_it(roots: Roots, outside: Path) -> None:
    with pytest.raises(NotAllowed, match=r"`stylus root add .*allowed-not`"):
        roots.file(str(outside / "clip.wav"))


def test_a_refused_folder_is_named_itself_and_not_what_holds_it(roots: Roots, outside: Path) -> None:
    with pytest.raises(NotAllowed, match=r"`stylus root add \S*/allowed-not` allows it"):
        roots.resolved(str(outside))


def test_on_macos_the_system_says_whether_two_folders_are_one(
    roots: Roots, inside: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Desktop and desktop are there.
    (tmp_path / "typed").symlink_to(inside)
    other = tmp_path / "typed" / "new" / "clip.wav"
    assert not roots.holds(other)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert roots.holds(other)
    assert not roots.holds(outside / "clip.wav")


@pytest.mark.parametrize("text", ['{"roots": "/home"}', '{"roots": [5]}', '{"roots": ["here"]}', "{"])
def test_damaged_roots_allow_nothing_and_stay(inside: Path, text: str) -> None:
    user_data().mkdir(exist_ok=True)
    file = user_data() / "roots.json"
    file.write_text(text)
    assert kept_roots() == []
    for change in (lambda folder: keep_roots([folder]), forget_root):
        with pytest.raises(BadRequest, match=r"roots\.json is damaged"):
            change(inside)
    assert file.read_text() == text


def test_kept_roots_hold_between_starts(outside: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed):
        Roots().file(str(outside / "clip.wav"))
    keep_roots([outside])
    assert Roots().file(str(outside / "clip.wav"))
    assert kept_roots() == [outside.resolve()]
    forget_root(outside)
    assert kept_roots() == []
    with pytest.raises(NotFound, match="kept are none"):
        forget_root(outside)
    with pytest.raises(NotFound):
        keep_roots([outside, tmp_path / "nowhere"])
    with pytest.raises(BadRequest, match="is all there is"):
        keep_roots([outside, Path("/")])
    # None of them, where one cannot be.
    assert kept_roots() == []


@pytest.mark.skipif(os.name != "posix", reason="how a shell reads a command")
def test_the_command_that_allows_folders_is_read_as_them(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("R&B", "it's (new)", "plain", "$HOME `x`")]
    command = adding(folders).strip("`").replace("stylus root add", "printf '%s\n'")
    read = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert read.splitlines() == list(map(str, folders))


def test_a_copy_is_what_was_there(roots: Roots, inside: Path, tmp_path: Path) -> None:
    copy = roots.copied(inside / "clip.wav", tmp_path)
    assert (copy.name, copy.read_bytes()) == ("clip.wav", b"inside")


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links")
def test_what_was_swapped_for_a_link_after_the_check_is_not_read(
    roots: Roots, inside: Path, outside: Path, tmp_path: Path
) -> None:
    (inside / "sub").mkdir()
    (inside / "sub" / "clip.wav").write_bytes(b"inside")
    checked = roots.file(str(inside / "sub" / "clip.wav"))
    checked.unlink()
    checked.symlink_to(outside / "clip.wav")
    with pytest.raises(NotAllowed):
        roots.copied(checked, tmp_path)
    checked.unlink()
    checked.parent.rmdir()
    checked.parent.symlink_to(outside)
    with pytest.raises(NotAllowed, match="leads out of"):
        roots.copied(checked, tmp_path)
    with pytest.raises(NotAllowed), roots.standing_in(checked.parent):
        pass
    with pytest.raises(NotAllowed, match="stylus root add"):
        roots.copied(outside.resolve() / "clip.wav", tmp_path)
    assert not list(tmp_path.glob("*.wav"))


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links")
def test_links_swapped_all_the_time_never_lead_out(roots: Roots, inside: Path, outside: Path, tmp_path: Path) -> None:
    real, path, into = inside / "real", inside / "swapped", tmp_path / "into"
    real.mkdir()
    into.mkdir()
    (real / "clip.wav").write_bytes(b"inside")
    path.mkdir()
    (path / "clip.wav").write_bytes(b"inside")
    spare = inside / "spare"
    ending = threading.Event()

    def swap() -> None:
        while not ending.is_set():
            path.rename(spare)
            path.symlink_to(outside)
            path.unlink()
            spare.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[bytes] = set()
    try:
        for _ in range(2000):
            try:
                copy = roots.copied(roots.file(str(path / "clip.wav")), into)
            except StylusError:
                continue
            seen.add(copy.read_bytes())
    finally:
        ending.set()
        thread.join()
    assert seen <= {b"inside"}


@pytest.mark.skipif(os.name == "nt", reason="there are no named pipes among files")
def test_a_pipe_does_not_hold_us_up(roots: Roots, inside: Path, tmp_path: Path) -> None:
    os.mkfifo(inside / "pipe.wav")
    with pytest.raises(BadRequest, match="is not a file"):
        roots.file(str(inside / "pipe.wav"))
    with pytest.raises(NotAllowed):
        roots.copied(inside / "pipe.wav", tmp_path)
