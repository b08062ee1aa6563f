def check_whole_models(*a): pass
