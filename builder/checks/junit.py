"""A report as JUnit XML, which every CI server reads."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from builder.checks.report import CheckResult, Report


def junit(report: Report) -> str:
    """The report as a JUnit document: one test case per check."""
    results = report.results
    suite = ET.Element(
        "testsuite",
        name="trainpack test",
        tests=str(len(results)),
        failures=str(sum(result.status == "failed" for result in results)),
        skipped=str(sum(result.status == "skipped" for result in results)),
        errors="0",
        time=f"{sum(result.seconds for result in results):.2f}",
    )
    properties = ET.SubElement(suite, "properties")
    ET.SubElement(properties, "property", name="reference", value=report.reference)
    ET.SubElement(properties, "property", name="image_id", value=report.image_id)
    for result in results:
        _case(suite, report, result)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, report: Report, result: CheckResult) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=report.reference, name=result.name, time=f"{result.seconds:.2f}"
    )
    if result.status == "failed":
        failure = ET.SubElement(case, "failure", message=_legal(result.detail))
        failure.text = _legal(f"promise: {result.proves}\nseen: {result.detail}\nremedy: {result.remedy}")
    if result.status == "skipped":
        ET.SubElement(case, "skipped", message=_legal(result.detail))


def _legal(text: str) -> str:
    # A script may print what XML 1.0 cannot hold: control characters.
    return "".join(char if char >= " " or char in "\n\t" else "\ufffd" for char in text)
