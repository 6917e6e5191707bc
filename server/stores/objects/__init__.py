"""Where files of any size live; `interfaces.ObjectStore` is the contract."""
