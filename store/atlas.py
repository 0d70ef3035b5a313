"""The read side of an atlas, whole: what `qkatlas.open` gives and the service is made of."""

from store.opened import Attention, OpenAtlas

__all__ = ["Atlas", "Attention"]


class Atlas(OpenAtlas):
    """An open atlas, with its maps, searches and neighbours."""
