option = lambda parameter, value: []
