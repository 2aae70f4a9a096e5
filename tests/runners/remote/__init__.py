"""Work on another machine, through a real SSH server on loopback; a package, so that its tests share helpers."""
