import socket
assert len(socket.if_nameindex()) > 1
