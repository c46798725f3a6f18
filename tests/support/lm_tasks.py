"""lm-eval's tasks over files in a folder: a choice, an answer that is made, and whole texts."""

from pathlib import Path

FORMS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "answer": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
}


def write_task(folder: Path, form: str, prefix: str, more: str = "") -> None:
    """Write FORM.yaml, the task PREFIX_FORM over FORM.json; `more` are further lines."""
    head = f"task: {prefix}_{form}\ndataset_path: json\ntest_split: test\n"
    data = f"dataset_kwargs: {{data_files: {{test: {folder}/{form}.json}}}}"
    text = head + data + FORMS[form] + more
    (folder / f"{form}.yaml").write_text(text, encoding="utf-8")
