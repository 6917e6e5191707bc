"""Where packages of plugins live; `interfaces.PluginHome` is the contract."""
