"""From a plan to built components joined into what trains, evaluates and exports."""

from toolkit.assembly.assemble import Assembly, assemble, corrupt_of, count_parameters, training
from toolkit.assembly.kept import Kept

__all__ = ["Assembly", "Kept", "assemble", "corrupt_of", "count_parameters", "training"]
