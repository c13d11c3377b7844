"""Attacks on privileges."""

from typing import Final

from tests.escapes import looks
from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import privilege

ATTACKS: Final = (
    Attack("set-id by chmod", Kind.PRIVILEGE, privilege.set_id_by_chmod, Sign.SEEN, look=looks.set_id_files),
    Attack("set-id by open", Kind.PRIVILEGE, privilege.set_id_by_open, Sign.SEEN, look=looks.set_id_files),
    Attack("set-group-id by open", Kind.PRIVILEGE, privilege.set_group_id_by_open, Sign.SEEN, look=looks.set_id_files),
    Attack("set-id by openat2", Kind.PRIVILEGE, privilege.set_id_by_openat2, Sign.SEEN, look=looks.set_id_files),
    Attack("set-id by creat", Kind.PRIVILEGE, privilege.set_id_by_creat, Sign.SEEN, look=looks.set_id_files),
    Attack("set-id by mknod", Kind.PRIVILEGE, privilege.set_id_by_mknod, Sign.SEEN, look=looks.set_id_files),
    Attack(
        "set-id by a nameless file",
        Kind.PRIVILEGE,
        privilege.set_id_by_nameless_file,
        Sign.SEEN,
        look=looks.set_id_files,
    ),
    Attack("set-id by rewriting", Kind.PRIVILEGE, privilege.set_id_by_rewriting, Sign.SEEN, look=looks.set_id_files),
    Attack("character device", Kind.PRIVILEGE, privilege.character_device, Sign.CLAIM),
    Attack("block device", Kind.PRIVILEGE, privilege.block_device, Sign.CLAIM),
    Attack("become root", Kind.PRIVILEGE, privilege.become_root, Sign.CLAIM),
    Attack("become another", Kind.PRIVILEGE, privilege.become_another, Sign.CLAIM),
    Attack("chown", Kind.PRIVILEGE, privilege.give_away, Sign.CLAIM),
    Attack("su and sudo", Kind.PRIVILEGE, privilege.switch_user, Sign.CLAIM),
    Attack("capset", Kind.PRIVILEGE, privilege.capabilities_by_call, Sign.CLAIM),
    Attack("ambient capability", Kind.PRIVILEGE, privilege.ambient_capability, Sign.CLAIM),
    Attack("file capability", Kind.PRIVILEGE, privilege.file_capability, Sign.CLAIM),
    Attack("trusted attribute", Kind.PRIVILEGE, privilege.trusted_attribute, Sign.CLAIM),
    Attack("new privileges", Kind.PRIVILEGE, privilege.new_privileges, Sign.CLAIM),
    Attack("securebits", Kind.PRIVILEGE, privilege.secure_bits, Sign.CLAIM),
    Attack("newuidmap", Kind.PRIVILEGE, privilege.map_ids, Sign.CLAIM),
)
