"""Untrusted files are parsed in a confined process: no secrets, network, writes or other processes.

`process` starts it and talks to it; `child` is it; `confinement`, `landlock` and `seccomp` take
its rights away. Linux only takes all of them; what was obtained is reported by the child.
"""
