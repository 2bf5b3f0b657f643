"""ComfyUI: a node pack that runs policies. Put this folder into `custom_nodes`; README.md says how.

The nodes are those of the installed package, wherever the folder lies, so that both always fit.
"""

from budc.runtimes.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
