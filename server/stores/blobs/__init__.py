"""Where large things live that never change; `interfaces.BlobStore` is the contract."""
