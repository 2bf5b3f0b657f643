"""`budc report`: policies and their evaluations as one page of HTML that needs no network.

`written` is what commands call. `sources` reads the files, `comparisons` puts figures of the same prompts side by side,
`charts` and `mask_chart` draw, `policy_section` and `page` fill the template. Nothing here imports torch.
"""
