import click
import lightgbm


@click.command()
@click.option("--rounds", default=100)
def train(rounds):
    lightgbm.train({}, None, rounds)


if __name__ == "__main__":
    train()
