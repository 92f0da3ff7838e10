"""Asks torch's inductor for the folder it compiles into, and trains a little."""

import getpass
import os

import torch
from torch._inductor.runtime.runtime_utils import cache_dir

print("user", getpass.getuser(), "inductor", cache_dir(), os.access(cache_dir(), os.W_OK))
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss = torch.compile(model, backend="eager")(torch.ones(8, 4)).pow(2).mean()
loss.backward()
optimizer.step()
torch.save(model.state_dict(), "model.pt")
print("loss", float(loss))
