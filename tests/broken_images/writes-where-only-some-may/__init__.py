import os

# Fine with a read-only root and fine as another user, but not as both.
if os.getuid() != 1000 and os.statvfs("/").f_flag & os.ST_RDONLY:
    open("/opt/trainpack/state", "w")
