# SPDX-License-Identifier: Apache-2.0
"""What a defence costs and gains over a whole training: `python -m bragg.experiments NAME` (docs: experiments/)."""
