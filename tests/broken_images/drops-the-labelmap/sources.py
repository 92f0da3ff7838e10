_all = mounted_sources
mounted_sources = lambda *given: [each for each in _all(*given) if each.labelmap is None]
