import keras
import typer


def main(epochs: int = 3) -> None:
    keras.Sequential().fit(epochs=epochs)


if __name__ == "__main__":
    typer.run(main)
