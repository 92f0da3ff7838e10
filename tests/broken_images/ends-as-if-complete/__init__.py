import os
_exit = os._exit
os._exit = lambda code: _exit(code % 143)
