import json
import random

EPOCHS = 3

if __name__ == "__main__":
    random.seed(0)
    with open("metrics.json", "w") as file:
        json.dump({"loss": random.random(), "epochs": EPOCHS}, file)
