"""Which distribution of a package index an imported module comes from."""

from __future__ import annotations

# Where the two names differ. Sources: each project's own installation page.
_RENAMED = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "hydra": "hydra-core",
    "imblearn": "imbalanced-learn",
    "jwt": "PyJWT",
    "mpl_toolkits": "matplotlib",
    "osgeo": "GDAL",
    "pkg_resources": "setuptools",
    "pynvml": "nvidia-ml-py",
    "pythonjsonlogger": "python-json-logger",
    "ruamel": "ruamel.yaml",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sksurv": "scikit-survival",
    "skopt": "scikit-optimize",
    "slugify": "python-slugify",
    "tree": "dm-tree",
    "umap": "umap-learn",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
# Modules below a shared namespace.
_NAMESPACED = {
    "absl": "absl-py",
    "google.protobuf": "protobuf",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.aiplatform": "google-cloud-aiplatform",
    "google.auth": "google-auth",
    "azure.identity": "azure-identity",
    "azure.storage.blob": "azure-storage-blob",
}
# Where both names are the same, and known to be the project that a training script means.
_SAME = frozenset(
    """accelerate aiohttp albumentations anndata bitsandbytes boto3 botocore catboost click comet_ml cupy
    cython dask datasets decord deepspeed diffusers docopt duckdb einops emoji evaluate fastai fastapi
    filelock fire flask flax fsspec gensim geopandas gym gymnasium h5py httpx huggingface_hub imageio
    imgaug jax jaxlib jinja2 joblib jsonargparse jsonlines keras kornia librosa lightgbm lightning lmdb
    loguru lxml matplotlib mlflow monai neptune networkx nibabel nltk numba numpy omegaconf onnx
    onnxruntime openpyxl optax optuna orjson pandas patsy peft picsellia plotly polars prometheus_client
    psutil pyarrow pycocotools pydantic pydicom pydot pytest pytorch_lightning rasterio ray regex
    requests rich safetensors scipy seaborn segmentation_models_pytorch sentence_transformers
    sentencepiece shap shapely simple_parsing skorch soundfile spacy sqlalchemy statsmodels supervision
    sympy tabulate tensorboard tensorboardX tensorflow tensorflow_datasets tensorflow_hub termcolor
    tf_keras thop tifffile tiktoken timm tokenizers toml tomli toolz torch torch_geometric torchaudio
    torcheval torchinfo torchmetrics torchsummary torchtext torchvision tqdm transformers trl typer
    typing_extensions tyro ujson ultralytics wandb webdataset xarray xformers xgboost xlrd yacs yolov5
    zarr""".split()
)


def distribution_of(module: str) -> tuple[str, str | None]:
    """The distribution that provides a module, and what to check where that is a guess.

    Args:
        module: Dotted name, as imported.
    """
    package = module.partition(".")[0]
    for namespace, name in _NAMESPACED.items():
        if module == namespace or module.startswith(f"{namespace}."):
            return name, None
    if package in _RENAMED:
        return _RENAMED[package], None
    if package in _SAME:
        return package.replace("_", "-"), None
    if package in ("google", "azure"):
        return module.replace(".", "-"), "which distribution provides this module is a guess"
    return package, "taken for the name of its distribution, which is a guess"
