"""Secrets are read from files that nobody else can read, and their versions give nothing away."""

import os
from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidValue
from stepgate.workspace.secrets import MAX_BYTES, SecretFolder

KEY = b"key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def put(folder: Path, name: str, value: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(value)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_secret_is_the_content_of_its_file_without_the_last_line_feed(
    folder: Path, workspace: Path, end: bytes
) -> None:
    put(folder, "TOKEN", b" two\nlines" + end)
    secret = SecretFolder(folder, KEY).read("TOKEN", workspace, "secrets[0]")
    assert (secret.name, secret.value) == ("TOKEN", " two\nlines")
    assert "lines" not in repr(secret)


def test_a_version_stands_for_name_value_and_key(folder: Path, workspace: Path) -> None:
    def version(name: str, key: bytes) -> str:
        return SecretFolder(folder, key).read(name, workspace, "secrets[0]").version

    put(folder, "A", b"s3cret-value")
    put(folder, "B", b"s3cret-value")
    first = version("A", KEY)
    assert first == version("A", KEY)
    put(folder, "A", b"s3cret-other")
    assert len({first, version("A", KEY), version("B", KEY), version("B", b"other key")}) == 4


def test_files_as_kubernetes_mounts_them_are_followed_inside_their_folder(folder: Path, workspace: Path) -> None:
    (folder / "..2026").mkdir()
    put(folder / "..2026", "TOKEN", b"s3cret-value", 0o400)
    (folder / "..data").symlink_to("..2026")
    (folder / "TOKEN").symlink_to("..data/TOKEN")
    assert SecretFolder(folder, KEY).read("TOKEN", workspace, "secrets[0]").value == "s3cret-value"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_a_file_that_others_can_reach_is_refused_with_the_command_that_mends_it(
    folder: Path, workspace: Path, mode: int
) -> None:
    path = put(folder, "TOKEN", b"s3cret-value", mode)
    with pytest.raises(InvalidValue, match="by others") as refused:
        SecretFolder(folder, KEY).read("TOKEN", workspace, "secrets[3]")
    assert refused.value.field == "secrets[3]"
    assert refused.value.fix is not None
    assert f"chmod 600 {path}" in refused.value.fix


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "fewer than 8 bytes"),
        (b"short\n", "fewer than 8 bytes"),
        (b" " * 20, "fewer than 8 bytes"),
        (b"s3cret\0value", "contains NUL"),
        (b"s3cret\xffvalue", "not UTF-8"),
        (b"x" * (MAX_BYTES + 1), "more than"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_its_value(
    folder: Path, workspace: Path, value: bytes, said: str
) -> None:
    put(folder, "TOKEN", value)
    with pytest.raises(InvalidValue, match=said) as refused:
        SecretFolder(folder, KEY).read("TOKEN", workspace, "secrets[0]")
    assert refused.value.reason_code == "secret_unavailable"
    assert refused.value.fix
    assert refused.value.__context__ is None
    assert "s3cret" not in str(refused.value)


def test_a_secret_that_is_not_there_says_where_it_would_be(folder: Path, workspace: Path) -> None:
    with pytest.raises(InvalidValue, match="No such file") as refused:
        SecretFolder(folder, KEY).read("TOKEN", workspace, "secrets[0]")
    assert str(folder / "TOKEN") in refused.value.message
    with pytest.raises(InvalidValue, match="No such file"):
        SecretFolder(folder / "gone", KEY).read("TOKEN", workspace, "secrets[0]")


def test_links_out_folders_and_pipes_are_no_secrets(folder: Path, workspace: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", b"s3cret-value")
    (folder / "LINK").symlink_to(outside)
    (folder / "FOLDER").mkdir()
    os.mkfifo(folder / "PIPE", 0o600)
    for name in ("LINK", "FOLDER", "PIPE"):
        with pytest.raises(InvalidValue, match=r"leads out|no regular file"):
            SecretFolder(folder, KEY).read(name, workspace, "secrets[0]")


def test_a_folder_that_commands_may_see_is_no_source(folder: Path, tmp_path: Path) -> None:
    put(folder, "TOKEN", b"s3cret-value")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "alias").symlink_to(folder)
    for workspace, shown, path in (
        (folder, (), folder),
        (tmp_path, (), folder),
        (elsewhere, (tmp_path,), folder),
        (tmp_path, (), tmp_path / "alias"),
    ):
        with pytest.raises(InvalidValue, match="which commands see") as refused:
            SecretFolder(path, KEY, shown).read("TOKEN", workspace, "secrets[0]")
        assert refused.value.field == "STEPGATE_SECRETS_DIR"
    assert SecretFolder(folder, KEY, (elsewhere,)).read("TOKEN", elsewhere, "secrets[0]").value == "s3cret-value"


def test_a_tenant_has_a_folder_of_its_own(folder: Path, workspace: Path) -> None:
    (folder / "acme").mkdir(mode=0o700)
    put(folder, "TOKEN", b"of-the-default-one")
    put(folder / "acme", "KEY", b"of-another-tenant")
    secrets = SecretFolder(folder, KEY)
    assert secrets.of("default").read("TOKEN", workspace, "secrets[0]").value == "of-the-default-one"
    assert secrets.of("acme").read("KEY", workspace, "secrets[0]").value == "of-another-tenant"
    for tenant, name in (("acme", "TOKEN"), ("default", "KEY"), ("third", "TOKEN")):
        with pytest.raises(InvalidValue) as caught:
            secrets.of(tenant).read(name, workspace, "secrets[0]")
        assert caught.value.reason_code == "secret_unavailable"
