"""Attacks by namespaces and mounts."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import namespaces

ATTACKS: Final = (
    Attack("unshare user", Kind.NAMESPACES, namespaces.unshare_user, Sign.CLAIM),
    Attack("unshare the others", Kind.NAMESPACES, namespaces.unshare_others, Sign.CLAIM),
    Attack("clone user", Kind.NAMESPACES, namespaces.clone_user, Sign.CLAIM),
    Attack("clone with padding", Kind.NAMESPACES, namespaces.clone_user_with_padding, Sign.CLAIM),
    Attack("clone3 user", Kind.NAMESPACES, namespaces.clone3_user, Sign.CLAIM),
    Attack("setns", Kind.NAMESPACES, namespaces.join_namespaces, Sign.CLAIM),
    Attack("setns by process", Kind.NAMESPACES, namespaces.join_by_process, Sign.CLAIM),
    Attack("mount tmpfs", Kind.NAMESPACES, namespaces.mount_tmpfs, Sign.CLAIM),
    Attack("mount proc", Kind.NAMESPACES, namespaces.mount_proc, Sign.CLAIM),
    Attack("bind mount", Kind.NAMESPACES, namespaces.bind_mount, Sign.CLAIM),
    Attack("remount writable", Kind.NAMESPACES, namespaces.remount_writable, Sign.CLAIM),
    Attack("umount", Kind.NAMESPACES, namespaces.unmount, Sign.CLAIM),
    Attack("pivot_root", Kind.NAMESPACES, namespaces.swap_root, Sign.CLAIM),
    Attack("chroot and out", Kind.NAMESPACES, namespaces.change_root, Sign.TOLD),
    Attack("chroot", Kind.NAMESPACES, namespaces.change_root_only, Sign.CLAIM),
    Attack("open_tree", Kind.NAMESPACES, namespaces.clone_tree, Sign.CLAIM),
    Attack("move_mount", Kind.NAMESPACES, namespaces.move_a_mount, Sign.CLAIM),
    Attack("fsopen", Kind.NAMESPACES, namespaces.open_file_system, Sign.CLAIM),
    Attack("fspick", Kind.NAMESPACES, namespaces.pick_file_system, Sign.CLAIM),
    Attack("mount_setattr", Kind.NAMESPACES, namespaces.set_mount_attributes, Sign.CLAIM),
    Attack("host name", Kind.NAMESPACES, namespaces.host_name, Sign.CLAIM),
    Attack("id maps", Kind.NAMESPACES, namespaces.id_map, Sign.CLAIM),
)
