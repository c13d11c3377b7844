"""Git's own forms of a change set: patches and commits, made without running git or anything it would run."""
