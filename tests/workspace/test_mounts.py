import json
import subprocess
import sys
from pathlib import Path

import pytest

from stepgate.workspace.access import Root
from stepgate.workspace.mounts import FUSE_MAGIC, MOUNTS_INSIDE, check_in_place, network_type, parse
from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
EXT4, TMPFS, OVERLAY, BTRFS, XFS = 0xEF53, 0x01021994, 0x794C7630, 0x9123683E, 0x58465342


@pytest.mark.parametrize(
    ("magic", "type_", "found"),
    [
        (EXT4, "ext4", None),
        (XFS, "xfs", None),
        (BTRFS, "btrfs", None),
        (TMPFS, "tmpfs", None),
        (OVERLAY, "overlay", None),
        (0x2FC12FC1, "zfs", None),
        (EXT4, None, None),
        (0x6969, "nfs", "nfs"),
        (0x6969, "nfs4", "nfs4"),
        (0x6969, None, "nfs"),
        (0xFF534D42, "cifs", "cifs"),
        (0xFF534D42, None, "cifs"),
        (0xFE534D42, "smb3", "smb3"),
        (0xFE534D42, None, "smb2"),
        (0x517B, "smbfs", "smbfs"),
        (0x01021997, "9p", "9p"),
        (0x01021997, None, "9p"),
        (0x00C36400, "ceph", "ceph"),
        (0x5346414F, "afs", "afs"),
        (0x6B414653, None, "afs"),
        (0x01161970, "gfs2", "gfs2"),
        (0x7461636F, "ocfs2", "ocfs2"),
        (0x0BD00BD0, "lustre", "lustre"),
        (0x786F4256, "vboxsf", "vboxsf"),
        (FUSE_MAGIC, "virtiofs", "virtiofs"),
        (FUSE_MAGIC, "fuse.sshfs", "fuse.sshfs"),
        (FUSE_MAGIC, "fuse.rclone", "fuse.rclone"),
        (FUSE_MAGIC, "fuse.glusterfs", "fuse.glusterfs"),
        (FUSE_MAGIC, "fuse", "fuse"),
        (FUSE_MAGIC, None, "fuse"),
        (FUSE_MAGIC, "fuseblk", None),
        (FUSE_MAGIC, "fuse.fuse-overlayfs", None),
        (FUSE_MAGIC, "fuse.gocryptfs", None),
    ],
)
def test_a_file_system_shared_with_other_hosts_is_known_by_its_number_or_its_name(
    magic: int, type_: str | None, found: str | None
) -> None:
    assert network_type(magic, type_) == found


def test_names_of_mounts_are_read_as_they_are() -> None:
    line = "36 35 98:0 /mnt1 /a\\040b/\\134c\\011 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    (found,) = parse(line + "\n")
    assert (found.id, found.parent, found.point, found.type) == (36, 35, "/a b/\\c\t", "ext3")


def test_a_folder_on_a_local_disk_may_be_worked_in(tmp_path: Path) -> None:
    with Root.open(tmp_path) as root:
        check_in_place(root)


def test_real_mounts_inside_are_refused_for_as_long_as_they_are_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.workspace.mounting", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT)
    if "PermissionError" in done.stderr and "enter_namespace" in done.stderr:
        pytest.skip("namespaces are not permitted here")
    assert done.returncode == 0, done.stderr
    space = str(tmp_path / "space")
    assert json.loads(done.stdout) == {
        "plain": None,
        "beside": None,
        "inside": [MOUNTS_INSIDE, [f"{space}/a b"]],
        "gone": None,
        "a file": [MOUNTS_INSIDE, [f"{space}/file"]],
        "one in the other": [MOUNTS_INSIDE, [f"{space}/deep", f"{space}/file"]],
        "itself": None,
    }
