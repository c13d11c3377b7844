"""Git repositories that no name gives away: bare ones, and those that a `.git` file or link leads to.

Whoever changes the configuration or a hook of one has the next git command that a person gives run their program. Git
takes a folder for a repository by what lies in it (gitrepository-layout(5)), so that is looked at here as well.
"""

from typing import Final

from stepgate.domain.errors import ChangeRefused, PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.paths import ancestors
from stepgate.workspace.states import stat_beneath

_HEAD: Final = "HEAD"
_OWN, _SHARED = ("objects", "refs"), ("commondir",)


def refuse_repositories(root: Root, change_set: ChangeSet) -> None:
    """Raises ChangeRefused, naming the path, where a change lies in what is a repository before it or after it."""
    known: dict[str, bool] = {}
    touched = {change.path for change in change_set.changes}
    made = {change.path for change in change_set.changes if change.after is not None}

    def there(path: str) -> bool:
        try:
            return path in made or stat_beneath(root, path, touched) is not None
        except PathRefused:
            return False

    def is_repository(folder: str) -> bool:
        if folder not in known:
            top = f"{folder}/" if folder else ""
            known[folder] = there(top + _HEAD) and any(
                all(there(top + name) for name in names) for names in (_OWN, _SHARED)
            )
        return known[folder]

    for change in change_set.changes:
        for folder in ("", *ancestors(change.path)):
            if is_repository(folder):
                raise ChangeRefused(
                    f"{change.path!r} belongs to the git repository {folder or '.'!r}, which is protected",
                    field="path",
                    fix="leave what belongs to a repository to git",
                )
