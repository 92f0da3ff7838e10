open("/scratch/x", "w").close()
