"""Old names: the `config.yaml` of models that were trained before the rooms moved. Nothing else imports them."""
