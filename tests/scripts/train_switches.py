import argparse

import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--shuffle", action="store_true")
parser.add_argument("--no-cache", dest="cache", action="store_false")
parser.add_argument("--augment", dest="augment", action="store_true")
parser.add_argument("--no-augment", dest="augment", action="store_false")
parser.set_defaults(augment=True)
args = parser.parse_args()
print(tf.__version__, args)
