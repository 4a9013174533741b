//! Whose an access key is.

use super::{Read, absent, error};
use crate::aws::session::Session;

impl Session {
    /// The account that an access key is of. AWS answers for keys of every account, and for such as are gone.
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetAccessKeyInfo.html>
    pub async fn account_of_key(&self, id: &str) -> Read<String> {
        let operation = "sts:GetAccessKeyInfo";
        let read = async {
            let answer = self.sts.get_access_key_info().access_key_id(id).send().await;
            answer.map(|a| a.account.unwrap_or_default()).map_err(|e| error(operation, &e))
        };
        self.measured(operation, read).await
    }

    /// The name of the user whose access key it is. Of a key that is not there, or of another account, AWS says `AccessDenied`.
    /// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccessKeyLastUsed.html>
    pub async fn user_of_key(&self, id: &str) -> Read<Option<String>> {
        let operation = "iam:GetAccessKeyLastUsed";
        let read = async {
            let answer = self.iam.get_access_key_last_used().access_key_id(id).send().await;
            absent(answer.map(|a| a.user_name).map_err(|e| error(operation, &e)))
        };
        self.measured(operation, read).await
    }
}
