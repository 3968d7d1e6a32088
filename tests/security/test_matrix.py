"""The security matrix: for each row the tests that hold it, or why it cannot happen here.

 1  an alias bomb in the YAML
        security/test_job_files.py: test_row_1_to_4_hostile_yaml
        unit/test_jobfile.py: test_file_larger_than_the_limit_is_refused, test_too_many_values_are_refused
 2  YAML that refers to itself or is nested without end
        security/test_job_files.py: test_row_1_to_4_hostile_yaml
        security/test_job_files.py: test_row_2_a_file_that_is_all_brackets_ends_with_a_message
        unit/test_jobfile.py: test_deep_nesting_is_refused_before_it_is_built
 3  YAML tags that call Python
        security/test_job_files.py: test_row_1_to_4_hostile_yaml, test_row_3_nothing_but_the_safe_loader_is_used
 4  duplicate keys, values that YAML guesses
        security/test_job_files.py: test_row_1_to_4_hostile_yaml
        unit/test_jobfile.py: test_duplicate_keys_are_refused_at_the_second_one
        unit/test_jobfile.py: test_value_that_yaml_would_guess_is_refused
        unit/test_job.py: test_types_are_strict
 5  template injection, templates that run away
        security/test_job_files.py: test_row_5_no_template_reaches_python_or_a_file
        security/test_job_files.py: test_row_5_a_template_that_runs_away_is_stopped
        unit/test_prompt.py: test_how_a_value_is_written, test_columns_with_any_name
        acceptance/test_request_and_response.py: test_texts_arrive_unchanged
 6  links and paths in the output
        security/test_places.py: test_row_6_no_link_is_followed_for_a_new_file
        security/test_places.py: test_row_6_a_link_in_place_of_the_folder_for_temporaries_is_refused
        security/test_places.py: test_row_6_a_link_in_place_of_a_part_is_never_written_through
        security/test_places.py: test_row_6_one_folder_has_one_lock_whatever_it_is_called
        security/test_places.py: test_row_6_a_link_in_place_of_the_lock_is_refused
        security/test_places.py: test_row_6_a_state_folder_that_others_control_is_refused
        security/test_hostile_input.py: test_row_18_rows_are_told_apart_by_their_place
 7  a base_url that leads to the wrong place
        unit/test_baseurl.py: test_plain_http_to_a_public_host_needs_to_be_asked_for
        unit/test_baseurl.py: test_link_local_address_is_refused_in_any_case
        unit/test_baseurl.py: test_address_in_another_notation_is_refused
        security/test_job_files.py: test_row_7_no_row_decides_where_its_request_goes
 8  redirects
        faults/client/test_conformance.py: test_a_redirect_is_returned_and_not_followed
        faults/test_run_level.py: test_refused_from_the_start
 9  proxies and netrc of the environment
        faults/client/test_conformance.py: test_nothing_is_taken_from_the_environment
10  the key in files, logs, tracebacks, lists of processes
        faults/test_secrets.py: test_normal_run, test_killed_run, test_refusal_that_echoes_key_and_prompt
        faults/test_secrets.py: test_failed_row_whose_error_echoes_the_key
        security/test_canaries.py: test_row_10_a_key_that_comes_back_is_kept_nowhere
        security/test_canaries.py: test_row_10_the_key_is_on_no_command_line
        security/test_canaries.py: test_row_10_a_key_hides_in_every_spelling_that_json_has_for_it
        unit/test_jobvalues.py: test_key_or_password_in_the_file_is_refused_without_showing_it
        unit/test_job.py: test_key_is_read_from_its_file_and_an_open_one_is_warned_about
        unit/test_attempt.py: test_the_repr_of_a_destination_shows_no_secret
11  prompts and completions in logs
        faults/test_secrets.py: test_template_that_fails_for_a_row
        security/test_canaries.py: test_row_11_an_error_that_nobody_expected_shows_only_its_place
        security/test_canaries.py: test_row_11_the_command_to_carry_on_repeats_no_prompt
        security/test_canaries.py: test_row_11_a_changed_prompt_is_not_repeated
        security/test_canaries.py: test_row_11_a_journal_that_fails_quotes_no_value
12  words from outside that act on a terminal or forge a line
        security/test_injection.py: test_row_12_every_way_of_saying_something_is_safe
        security/test_injection.py: test_row_12_a_log_line_is_one_line
        security/test_injection.py: test_row_12_hostile_names_in_errors, test_row_12_a_hostile_server
        security/test_injection.py: test_row_12_a_hostile_run_folder, test_row_12_the_name_of_who_holds_the_lock
13  a response that unpacks to gigabytes
        faults/client/test_conformance.py: test_a_small_response_that_unpacks_to_a_huge_one_is_refused
        faults/client/test_conformance.py: test_a_body_over_the_cap_is_refused_while_it_arrives
        unit/test_attempt.py: test_no_more_is_decompressed_than_the_cap_allows
14  trickles, blank lines, headers and interim responses without end
        faults/client/test_conformance.py: test_an_answer_that_trickles_for_ever_is_given_up
        faults/client/test_conformance.py: test_keep_alive_lines_for_ever_are_not_content
        faults/client/test_conformance.py: test_a_flood_of_interim_responses_ends
        properties/test_connection_properties.py: test_a_response_that_never_comes_to_its_body_is_bounded
15  JSON of a server that crashes readers
        security/test_hostile_server.py: test_row_15_hostile_json_is_a_completion_or_a_failed_row
        security/test_hostile_server.py: test_row_15_what_cannot_be_read_is_kept_as_it_came
        properties/test_completion_properties.py: test_no_bytes_raise, test_no_json_of_any_shape_raises
16  Parquet that lies
        security/test_hostile_input.py: test_row_16_parquet_that_lies_is_refused
        security/test_hostile_input.py: test_row_16_a_file_that_lies_ends_the_command_with_65
        security/test_hostile_input.py: test_row_16_a_constant_column_of_many_rows_is_no_lie
        security/test_hostile_input.py: test_row_16_a_cell_larger_than_a_row_may_be_is_one_bad_row
        unit/test_parquet.py: test_flipped_bytes_give_an_error_of_ours_or_rows
17  JSON Lines: lines and bombs of gigabytes, odd bytes
        security/test_hostile_input.py: test_row_17_a_line_of_gigabytes_is_one_bad_row
        security/test_hostile_input.py: test_row_17_a_frame_that_asks_for_two_gigabytes_is_refused
        security/test_hostile_input.py: test_row_17_odd_lines_are_rows_or_reasons, test_row_17_utf_16_is_named
        unit/test_inputs.py: test_a_decompression_bomb_comes_in_pieces_of_the_size_asked_for
        acceptance/test_errors.py: test_row_that_is_not_json_with_on_bad_row_stop
18  ids that are missing or doubled, an input that was swapped
        security/test_hostile_input.py: test_row_18_rows_are_told_apart_by_their_place
        acceptance/test_errors.py: test_changed_input_on_resume
        unit/test_source.py: test_a_file_that_changed_since_the_plan_is_refused
19  journal and output that others can read
        security/test_places.py: test_row_19_what_a_run_writes_is_its_owners_alone
        security/test_places.py: test_row_19_an_output_folder_that_others_can_write_in_is_reported
        faults/test_secrets.py: test_state_is_private
20  a json.py in the job's folder
        security/test_places.py: test_row_20_no_module_among_the_rows_is_run
21  tool calls that want to be executed
        security/test_hostile_server.py: test_row_21_calls_are_stored_and_never_made
        security/test_hostile_server.py: test_row_21_the_product_has_nothing_that_could_execute_an_answer
22  host, path and user in a part
        security/test_places.py: test_row_22_a_part_tells_nothing_of_where_it_was_made
        unit/test_part.py: test_the_footer
23  TLS that was turned down
        faults/client/test_tls.py: test_verification_cannot_be_turned_off
        faults/client/test_tls.py: test_a_wrong_certificate_is_refused_before_anything_is_sent
        faults/client/test_tls.py: test_a_certificate_for_the_name_is_checked_against_the_name
        security/test_job_files.py: test_row_23_no_key_of_a_job_turns_verification_off
24  SQL in what a server says; formulas in CSV
        security/test_hostile_server.py: test_row_24_words_of_a_server_are_values_and_never_sql
        security/test_hostile_server.py: test_row_24_statements_are_put_together_of_our_own_words_only
        unit/test_export.py: test_csv, test_csv_of_failed_rows
25  dependencies with known holes
        security/test_matrix.py: test_row_25_no_dependency_with_a_known_hole_is_accepted
        Locked hashes belong to who installs: no lock file names a registry here.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from tests.named import check_table

TESTS = Path(__file__).parents[1]
ROWS = 25
#: what was mended where: pyarrow's key requests to any URL, aiohttp's parser and redirects, memory in templates' fuel
MENDED = {"pyarrow": (26, 0, 0), "aiohttp": (3, 14, 3), "minijinja": (3, 1, 0)}


def test_every_row_names_tests_that_exist() -> None:
    """A row of the table is held by tests, and a test that is renamed or dropped is missed here."""
    check_table(__doc__ or "", ROWS)


def test_row_25_no_dependency_with_a_known_hole_is_accepted() -> None:
    """Every dependency has a lowest version, that of one with a hole is the one that mended it; there are few."""
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    lowest = {}
    for line in project["dependencies"]:
        name, _, version = re.split(r"(>=)", line.partition(",")[0].partition(";")[0])
        lowest[name.lower()] = numbers(version)
    assert len(lowest) <= 12
    for name, mended in MENDED.items():
        assert lowest[name] >= mended[: len(lowest[name])], name
        assert numbers(importlib.metadata.version(name)) >= mended


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
