"""The kit to write plugins in Python: one decorated function, and `serve`.

from plugins.sdk import Context, plugin, serve

@plugin
def greet(context: Context, name: str, times: int = 1) -> None:
for number in range(times):
context.progress(number / times, f"greeting {number + 1}")
print(f"Hello, {name}.")

if __name__ == "__main__":
serve(greet)
"""

from plugins.sdk.context import Cancelled, Context, PluginError
from plugins.sdk.definition import Plugin, Result, plugin
from plugins.sdk.serving import serve

__all__ = ["Cancelled", "Context", "Plugin", "PluginError", "Result", "plugin", "serve"]
