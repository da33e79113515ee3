"""Flash drives: cards, a page-level simulator, formulas beside it, and the device family `storage`."""

from hwsim.devices.storage.device import Storage as Storage
