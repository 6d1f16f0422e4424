"""A server of bundles: the Open Inference Protocol over HTTP and gRPC, answers to files, and a page to try them."""

from toolkit.serving.server.command import serve

__all__ = ["serve"]
