environment_source = lambda environment: Source(SET)
