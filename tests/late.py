"""Modules that a run imports when it needs them, which takes longer than a small run. Processes that tests fork begin
with them."""

LATE = (
    # torch imports its compiler for the first optimizer
    *("torch._dynamo", "torchinfo", "torchvision", "toolkit_cifar.dataset", "toolkit_vision.cnn"),
    *("jinja2", "matplotlib.backends.backend_agg", "onnxruntime", "scipy.optimize", "scipy.spatial"),
    *("toolkit.build.inspection", "toolkit.build.rehearsal", "toolkit.cli.check", "toolkit.cli.run"),
    *("toolkit.runs.next_steps", "toolkit.runs.session", "toolkit.serving.predict.files"),
)
