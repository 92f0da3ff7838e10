import os
_exit = os._exit
os._exit = lambda code: _exit(min(code, 1))
