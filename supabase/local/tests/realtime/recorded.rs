//! One test for each recording, in both protocol versions.

use crate::replay::play;

/// Names a test after what the recording shows.
macro_rules! as_recorded {
    ($($name:ident: $case:literal;)*) => {
        $(
            mod $name {
                #[tokio::test]
                async fn in_version_1() {
                    super::play("1.0.0", $case).await;
                }

                #[tokio::test]
                async fn in_version_2() {
                    super::play("2.0.0", $case).await;
                }
            }
        )*
    };
}

as_recorded! {
    heartbeats_are_answered: "connect_heartbeat_close";
    a_topic_is_joined_and_left: "join_minimal_and_leave";
    a_join_is_followed_by_presence_state_and_the_verdict: "join_full_reply_system_presence";
    a_second_join_replaces_the_first_and_refs_are_echoed: "join_refs";
    wrong_types_in_a_join_are_defaults_or_refusals: "join_payload_types";
    unknown_topics_and_events_do_no_harm: "topics_unknown";
    malformed_frames_are_ignored: "malformed_frames";
    the_token_of_a_join_is_checked: "auth_join_tokens";
    a_pushed_token_changes_the_claims_or_ends_the_channel: "auth_access_token_push";
    a_token_that_runs_out_ends_its_channel_only: "auth_token_expires_live";
    rows_of_all_types_look_as_recorded: "pg_insert_update_delete_types";
    filters_choose_rows: "pg_filters";
    bad_bindings_are_refused_by_a_system_message: "pg_bad_config";
    bindings_may_name_whole_schemas: "pg_scope_and_duplicates";
    bindings_may_select_columns: "pg_select_columns";
    policies_decide_who_sees_a_row: "pg_rls_visibility";
    a_full_identity_shows_old_rows: "pg_replica_identity_full";
    missing_grants_and_keys_are_errors: "pg_errors_no_grant_no_pk";
    broadcasts_reach_the_others_and_the_limits_of_size_hold: "broadcast_text";
    binary_broadcasts_reach_both_versions: "broadcast_binary";
    broadcasts_over_http_are_delivered_or_refused: "broadcast_rest";
    messages_of_the_database_are_delivered: "broadcast_from_database";
    messages_of_the_past_are_replayed: "replay";
    policies_decide_who_hears_and_speaks: "private_channels";
    members_come_and_go: "presence";
    presence_calls_are_checked_and_counted: "presence_errors_limits";
    channels_of_a_socket_are_limited: "limit_channels_per_client";
    users_are_limited: "limit_concurrent_users";
    payloads_are_limited: "limit_payload_size";
    a_project_may_allow_private_channels_only: "tenant_private_only";
    a_reload_disconnects_all: "server_requested_disconnect";
    a_silent_socket_is_closed: "no_heartbeat";
    a_stopped_server_closes_and_refuses: "server_shutdown";
    a_crashed_channel_says_so: "channel_crash";
}
