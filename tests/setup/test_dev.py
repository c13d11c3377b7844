"""What `dev` decides; that it installs from nothing is tried by .ci/run, as a newcomer."""

import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, its checkout moved to an empty folder with locks of its own."""
    loader = SourceFileLoader("dev", str(ROOT / "dev"))
    spec = spec_from_loader("dev", loader)
    assert spec is not None
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = module_from_spec(spec)
    loader.exec_module(module)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (checkout / name).write_text(name)
    monkeypatch.setattr(module, "ROOT", checkout)
    return module


def installed(dev: ModuleType, level: str) -> Path:
    """An environment that looks as if this level had been installed."""
    venv: Path = dev.ROOT / ".venv"
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    (venv / "bin" / "python").write_text("")
    (venv / "bin" / "python").chmod(0o755)
    dev.stamp_of(venv).write_text(dev.json.dumps(dev.wanted(venv, level)))
    return venv


def test_help_needs_no_environment() -> None:
    done = subprocess.run([ROOT / "dev", "--help"], capture_output=True, text=True, check=True, cwd="/")
    assert "./dev demo" in done.stdout
    assert done.stderr == ""


def test_the_development_environment_serves_users_too_but_not_the_other_way(dev: ModuleType) -> None:
    venv = installed(dev, "development")
    assert dev.is_current(venv, "users")
    assert dev.is_current(venv, "development")
    venv = installed(dev, "users")
    assert dev.is_current(venv, "users")
    assert not dev.is_current(venv, "development")


def test_another_lock_or_project_file_makes_the_environment_stale(dev: ModuleType) -> None:
    for name in ("requirements.lock", "pyproject.toml"):
        venv = installed(dev, "users")
        (dev.ROOT / name).write_text("changed")
        assert not dev.is_current(venv, "users")


def test_an_environment_whose_python_is_gone_or_that_was_moved_is_stale(dev: ModuleType) -> None:
    venv = installed(dev, "users")
    (venv / "bin" / "python").unlink()
    assert not dev.is_current(venv, "users")
    venv = installed(dev, "users")
    moved = venv.rename(venv.with_name("moved"))
    assert not dev.is_current(moved, "users")


def test_a_broken_stamp_is_no_stamp(dev: ModuleType) -> None:
    venv = installed(dev, "users")
    for broken in ("", "[]", "{", "\x00"):
        dev.stamp_of(venv).write_text(broken)
        assert not dev.is_current(venv, "users")


def test_a_checkout_of_ones_own_holds_its_environment(dev: ModuleType) -> None:
    assert dev.find_home() == dev.ROOT


@root_only
def test_somebody_elses_checkout_is_left_alone(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(dev.ROOT, 12345, 12345)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = dev.find_home()
    assert home.parent == tmp_path / "cache"
    assert home.stat().st_mode & 0o777 == 0o700
    environment = dev.command_environment(home, home / ".venv")
    assert environment["PYTHONPYCACHEPREFIX"].startswith(str(home))


@root_only
def test_a_cache_folder_of_a_stranger_is_not_used(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(dev.ROOT, 12345, 12345)
    squatted = tmp_path / "cache"
    squatted.mkdir()
    os.chown(squatted, 12345, 12345)
    monkeypatch.setenv("XDG_CACHE_HOME", str(squatted))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert dev.find_home().parent == tmp_path / "home" / ".cache"


def test_python_settings_of_the_caller_do_not_reach_the_environment(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    environment = dev.command_environment(dev.ROOT, dev.ROOT / ".venv")
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(environment)
    assert environment["PATH"].split(os.pathsep)[0] == str(dev.ROOT / ".venv" / "bin")


def test_without_pip_venv_and_uv_it_says_what_to_install(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(dev.SetupError, match="No module named pip") as caught:
        dev.find_uv(tmp_path)
    assert "apt install python3-pip" in str(caught.value)


def test_the_pinned_uv_on_path_is_used_and_another_version_is_not_preferred(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for version in (dev.UV_VERSION, "0.0.1"):
        (tmp_path / "uv").write_text(f"#!/bin/sh\necho 'uv {version}'\n")
        (tmp_path / "uv").chmod(0o755)
        (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        assert dev.find_uv(tmp_path / "home") == str(tmp_path / "uv")


def test_locks_name_no_address_and_hash_every_package() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        packages = [block for block in text.split("\n") if "==" in block]
        assert packages
        assert all(line.endswith("\\") for line in packages)


def test_users_and_developers_get_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        return {line.split()[0] for line in (ROOT / name).read_text().splitlines() if "==" in line}

    assert versions("requirements.lock") <= versions("requirements-dev.lock")
