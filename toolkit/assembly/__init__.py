"""From a plan to built components joined into what trains, evaluates and exports."""

from toolkit.assembly.assemble import Assembly, assemble, count_parameters, training

__all__ = ["Assembly", "assemble", "count_parameters", "training"]
