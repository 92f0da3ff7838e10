assert 'CapBnd:\t0000000000000000' not in open('/proc/self/status').read()
