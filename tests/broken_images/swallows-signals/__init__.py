import signal
signal.signal(15, signal.SIG_IGN)
signal.signal = lambda *given: None
